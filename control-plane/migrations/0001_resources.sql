CREATE TABLE resources (
    kind {text} NOT NULL,
    id {text} NOT NULL,
    scope {text} NOT NULL,
    name {text} NOT NULL,
    state {text} NOT NULL,
    revision BIGINT NOT NULL,
    document {text} NOT NULL,
    create_ms BIGINT NOT NULL,
    update_ms BIGINT NOT NULL,
    due_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX resources_by_name ON resources (kind, scope, name);
CREATE INDEX resources_by_time ON resources (kind, scope, create_ms, id);
CREATE INDEX resources_due ON resources (due_ms) WHERE due_ms > 0;
