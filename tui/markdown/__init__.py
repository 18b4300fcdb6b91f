"""Markdown as it is being written: split into blocks, rendered into lines, wrapped into rows.

    text --splitter--> Block --render--> Line, Table --layout--> Row

Blocks are cut so that each can be parsed alone, so the cost of new text does not grow with the text
before it. `document` stacks the rows of a whole conversation and wraps only what is near the view.
Nothing here draws or knows colours: a style is a name, which the widget resolves.
"""
