"""The tables, and how they became what they are.

`user_version` counts the scripts that a database has seen. A script is never changed once it has been
released; what comes later is a further one.
"""

from __future__ import annotations

_FIRST = """
CREATE TABLE chats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    deleted REAL,
    model TEXT NOT NULL,
    head INTEGER REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
    launch TEXT NOT NULL
) STRICT;
CREATE INDEX chats_by_age ON chats (updated DESC, id DESC) WHERE deleted IS NULL;
CREATE INDEX chats_by_head ON chats (head);

-- Small columns first: what a search reads of a row must not lie behind a long text.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent INTEGER REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    created REAL NOT NULL,
    status TEXT CHECK (status IN ('running', 'stop', 'length', 'cancelled', 'error')),
    writer TEXT NOT NULL,
    mu REAL,
    start INTEGER,
    vocabulary TEXT,
    model TEXT NOT NULL,
    chat_format TEXT NOT NULL,
    settings TEXT NOT NULL,
    stats TEXT NOT NULL,
    text TEXT NOT NULL,
    tokens BLOB NOT NULL,
    surprise BLOB NOT NULL
) STRICT;
CREATE INDEX messages_by_chat ON messages (chat, id);
CREATE INDEX messages_by_parent ON messages (parent);

CREATE VIRTUAL TABLE message_words USING fts5 (
    text, content = 'messages', content_rowid = 'id', prefix = '1 2 3',
    tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    INSERT INTO message_words (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    INSERT INTO message_words (message_words, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER message_changed AFTER UPDATE OF text ON messages WHEN old.text IS NOT new.text BEGIN
    INSERT INTO message_words (message_words, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO message_words (rowid, text) VALUES (new.id, new.text);
END;

CREATE VIRTUAL TABLE title_words USING fts5 (
    title, content = 'chats', content_rowid = 'id', prefix = '1 2 3',
    tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER chat_added AFTER INSERT ON chats BEGIN
    INSERT INTO title_words (rowid, title) VALUES (new.id, new.title);
END;
CREATE TRIGGER chat_removed AFTER DELETE ON chats BEGIN
    INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.id, old.title);
END;
CREATE TRIGGER chat_renamed AFTER UPDATE OF title ON chats WHEN old.title IS NOT new.title BEGIN
    INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.id, old.title);
    INSERT INTO title_words (rowid, title) VALUES (new.id, new.title);
END;
"""

SCRIPTS: tuple[str, ...] = (_FIRST,)
"""What makes each version from the one before, beginning with an empty database."""
