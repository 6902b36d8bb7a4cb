// Server-sent events as an async iterator.

export interface ServerSentEvent {
  id: string | undefined;
  event: string;
  data: string;
}

/** What a stream holds, event by event. Ends when the stream does; a last event without its empty line is none. */
export async function* readEvents(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<ServerSentEvent, void, undefined> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let fields: { id?: string; event?: string; data: string[] } = { data: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line !== "") {
          readField(line, fields);
          continue;
        }
        if (fields.data.length > 0) {
          yield { id: fields.id, event: fields.event ?? "message", data: fields.data.join("\n") };
        }
        fields = { data: [] };
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function readField(line: string, fields: { id?: string; event?: string; data: string[] }): void {
  const colon = line.indexOf(":");
  // A line that begins with a colon is a comment: a sign of life.
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") fields.data.push(value);
  else if (name === "id") fields.id = value;
  else if (name === "event") fields.event = value;
}
