-- One row a span. A reading that is not there is NULL, never 0. Times are UTC, ISO 8601 with microseconds and a Z, so
-- that their order as text is their order in time. device_uuids are joined by ';'; NULL means that nobody knew.
CREATE TABLE measurements (
    id                    INTEGER PRIMARY KEY,
    span_id               TEXT    NOT NULL UNIQUE,
    started_at            TEXT    NOT NULL,
    hostname              TEXT    NOT NULL,
    pid                   INTEGER NOT NULL,
    model_name            TEXT    NOT NULL,
    system                TEXT    NOT NULL,
    device_uuids          TEXT,
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    batch_size            INTEGER NOT NULL,
    runtime_s             REAL    NOT NULL,
    time_to_first_token_s REAL,
    gpu_energy_j          REAL,
    gpu_energy_std_j      REAL,
    cpu_energy_j          REAL,
    cpu_energy_std_j      REAL,
    prefill_energy_j      REAL,
    decode_energy_j       REAL,
    quality               TEXT    NOT NULL CHECK (quality IN ('measured', 'interpolated', 'modelled', 'unavailable')),
    method                TEXT    NOT NULL CHECK (method IN ('counter', 'power', 'none')),
    allocated             INTEGER NOT NULL CHECK (allocated IN (0, 1)),
    simulated             INTEGER NOT NULL CHECK (simulated IN (0, 1)),
    attributes            TEXT    NOT NULL -- a JSON object of strings
) STRICT;

CREATE INDEX measurements_by_model_and_time ON measurements (model_name, started_at);
CREATE INDEX measurements_by_time ON measurements (started_at);
