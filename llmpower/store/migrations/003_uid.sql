-- The user who sent the span, by the kernel's word; NULL where that is not known, as for all rows before this.
ALTER TABLE measurements ADD COLUMN uid INTEGER;

-- What the daemon must still know after a restart, a number by name.
CREATE TABLE notes (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
