/** Reads a listing page by page, when it is read. A page may be empty and still have a successor. */
export async function* pages<P extends { nextPageToken: string }, T>(
  read: (pageToken: string) => Promise<P>,
  items: (page: P) => readonly T[],
): AsyncGenerator<T, void, undefined> {
  for (let token = ""; ; ) {
    const page = await read(token);
    yield* items(page);
    token = page.nextPageToken;
    if (token === "") return;
  }
}

/** All items of a listing, in an array. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
