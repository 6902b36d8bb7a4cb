/** What a specialist found. */
export interface Finding {
  says: string;
  blames: string;
}

/** What another agent sends is read with care, like all that comes from outside. */
export function asFinding(content: unknown): Finding {
  const { says, blames } = content as Partial<Finding>;
  if (typeof says !== "string" || typeof blames !== "string") throw new Error(`no finding: ${JSON.stringify(content)}`);
  return { says, blames };
}
