//! Which trace a message belongs to, where the program has OpenTelemetry (feature `opentelemetry`).

use crate::Message;

/// Names the trace that is under way, unless the message names one.
pub(crate) fn put(message: &mut Message) {
    if message.traceparent.is_empty()
        && let Some(current) = current()
    {
        message.traceparent = current;
    }
}

/// The span that is active, as W3C Trace Context writes it.
#[cfg(feature = "opentelemetry")]
fn current() -> Option<String> {
    use opentelemetry::trace::TraceContextExt as _;
    let context = opentelemetry::Context::current();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

#[cfg(not(feature = "opentelemetry"))]
fn current() -> Option<String> {
    None
}

#[cfg(all(test, feature = "opentelemetry"))]
mod tests {
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
    };

    use super::*;

    #[test]
    fn the_span_that_is_active_is_named_and_none_is_made_up() {
        let mut message = Message::default();
        put(&mut message);
        assert_eq!(message.traceparent, "");
        let (trace, span) = (TraceId::from_bytes([0x0a; 16]), SpanId::from_bytes([0x0b; 8]));
        let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
        let _active = Context::new().with_remote_span_context(span).attach();
        put(&mut message);
        assert_eq!(message.traceparent, format!("00-{}-{}-01", "0a".repeat(16), "0b".repeat(8)));
        let mut own = Message { traceparent: "its own".to_owned(), ..Message::default() };
        put(&mut own);
        assert_eq!(own.traceparent, "its own");
    }
}
