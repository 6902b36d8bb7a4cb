CREATE TABLE happenings (
    id {text} NOT NULL PRIMARY KEY,
    workspace {text} NOT NULL,
    kind {text} NOT NULL,
    sandbox {text} NOT NULL,
    detail {text} NOT NULL,
    happen_ms BIGINT NOT NULL
);
CREATE INDEX happenings_by_workspace ON happenings (workspace, id);
CREATE TABLE deliveries (
    id {text} NOT NULL PRIMARY KEY,
    workspace {text} NOT NULL,
    rule_id {text} NOT NULL,
    alert_id {text} NOT NULL,
    body {text} NOT NULL,
    attempts BIGINT NOT NULL,
    due_ms BIGINT NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (due_ms, id);
CREATE INDEX deliveries_by_workspace ON deliveries (workspace);
