import { parse } from './categories';
import type { PromptElement } from './categories';
import type { PromptType } from './protocol';

/** A picture to try, with what it was asked to show. */
export interface Sample {
  readonly blob: Blob;
  readonly url: string;
  readonly name: string;
  readonly title: string;
  readonly alt: string;
  readonly prompt: string;
  readonly promptType: PromptType | null;
  readonly elements: readonly PromptElement[];
}

/** One entry of samples/samples.json. */
interface Listed {
  readonly file: string;
  readonly title: string;
  readonly alt: string;
  readonly prompt: string;
  readonly prompt_type?: PromptType;
  readonly elements: readonly string[];
}

/** Fetches the samples whole, so that taking one later needs no request. Without them the page works just as well. */
export async function fetchSamples(): Promise<Sample[]> {
  const list = await fetch('samples/samples.json').catch(() => null);
  if (list === null || !list.ok) return [];
  const { samples } = (await list.json()) as { samples: Listed[] };
  const fetched = await Promise.all(samples.map(fetchSample));
  return fetched.filter((sample) => sample !== null);
}

async function fetchSample({ file, title, alt, prompt, prompt_type, elements }: Listed): Promise<Sample | null> {
  const response = await fetch(`samples/${file}`).catch(() => null);
  if (response === null || !response.ok) return null;
  const blob = await response.blob();
  return {
    blob,
    url: URL.createObjectURL(blob),
    name: file,
    title,
    alt,
    prompt,
    promptType: prompt_type ?? null,
    elements: elements.map((written) => parse(written, 'other')),
  };
}
