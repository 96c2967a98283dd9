//! The tables, step by step. A step that was released is never changed; the next is added below it.

/// What each step does; after step n the file's `user_version` is n.
pub(super) const STEPS: [&str; 1] = ["
    -- The subject is the number as a signed one. Times are microseconds since 1970-01-01 UTC. Severity is 0, 1 or 2.
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY,
        subject INTEGER NOT NULL,
        state TEXT NOT NULL,
        severity INTEGER NOT NULL,
        opened INTEGER NOT NULL,
        last INTEGER NOT NULL,
        quiet INTEGER,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX alerts_by_age ON alerts (state, last);

    -- What was done about alerts: an audit trail. Nothing in it is changed, and it goes only with its alert.
    CREATE TABLE changes (
        alert INTEGER NOT NULL,
        time INTEGER NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        note TEXT,
        UNIQUE (alert, time, who, what)
    ) STRICT;
    CREATE TRIGGER changes_stay BEFORE UPDATE ON changes
        BEGIN SELECT RAISE(ABORT, 'the record of changes is not changed'); END;

    -- The numbers below this one are used up, or set apart for a running agent.
    CREATE TABLE numbers (next INTEGER NOT NULL) STRICT;
    INSERT INTO numbers VALUES (1);
"];
