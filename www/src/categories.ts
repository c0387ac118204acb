/** The thirteen kinds of element, in the order in which the page offers them. */
export const CATEGORIES = [
  'object',
  'human',
  'animal',
  'food',
  'location',
  'activity',
  'attribute',
  'color',
  'material',
  'shape',
  'counting',
  'spatial',
  'other',
] as const;

export type Category = (typeof CATEGORIES)[number];

/** Something that the prompt asks for. */
export interface PromptElement {
  readonly text: string;
  readonly category: Category;
}

export function isCategory(name: string): name is Category {
  return (CATEGORIES as readonly string[]).includes(name);
}

/** `text (category)`, as the engine reads it. The category is always written, so that parentheses in the text stay text. */
export function spell({ text, category }: PromptElement): string {
  return `${text} (${category})`;
}

/** Reads `text (category)`; anything else is taken whole, in the category `otherwise`. */
export function parse(written: string, otherwise: Category): PromptElement {
  const match = /^(.*\S)\s*\(([a-z]+)\)\s*$/is.exec(written);
  const category = match?.[2]?.toLowerCase() ?? '';
  if (match?.[1] !== undefined && isCategory(category)) return { text: match[1].trim(), category };
  return { text: written.trim(), category: otherwise };
}
