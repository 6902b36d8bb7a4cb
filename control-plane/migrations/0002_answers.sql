CREATE TABLE answers (
    caller {text} NOT NULL,
    idempotency_key {text} NOT NULL,
    fingerprint {text} NOT NULL,
    status BIGINT NOT NULL,
    location {text} NOT NULL,
    body {text} NOT NULL,
    expire_ms BIGINT NOT NULL,
    PRIMARY KEY (caller, idempotency_key)
);
CREATE INDEX answers_by_end ON answers (expire_ms);
