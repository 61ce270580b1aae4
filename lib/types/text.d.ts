// Files that are bundled into the binary as text: `import sql from "../../sql/x.sql" with { type: "text" }`.
// (A page's HTML is declared by @types/bun as a bundle; only imported as ./page/ is it text here.)

declare module "*.sql" {
  const text: string;
  export default text;
}

declare module "*.cql" {
  const text: string;
  export default text;
}

declare module "*.css" {
  const text: string;
  export default text;
}

declare module "./page/*.html" {
  const text: string;
  export default text;
}

/** Imported as JSON: its reader says what it holds. */
declare module "*.avsc" {
  const schema: unknown;
  export default schema;
}
