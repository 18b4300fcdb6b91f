"""Markdown as it is being written: split into blocks, rendered into lines, wrapped into rows, painted.

    text --splitter--> Block --render--> Line, Table --lines--> Row --strips--> Strip

Blocks are cut so that each can be parsed alone: the cost of new text does not grow with the text
before it. `document` and `section` stack the rows of a whole conversation, of which only those near
the view exist. Nothing here knows a colour: styles are names, which the widget resolves.
"""
