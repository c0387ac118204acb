/** The forms in which a model comes, and the files that each consists of. Knows neither the network nor storage. */
import { ImatchError } from './error';
import type { ModelForm, NamedBlob } from './protocol';

/** A file that a model's own lists name. */
export interface Listed {
  readonly name: string;
  readonly bytes: number | null;
  /** 64 lower-case hexadecimal digits. */
  readonly sha256: string | null;
}

/** Reads a small file whole; null where it is not there. */
export type ReadText = (name: string) => Promise<string | null>;

/** What a model consists of: small files, whole, and those that are to be read in ranges. */
export interface Contents {
  readonly form: ModelForm;
  readonly texts: Readonly<Record<string, string>>;
  readonly files: readonly Listed[];
}

export const MANIFEST = 'manifest.json';
export const CONFIG = 'config.json';
const PREPROCESSOR = 'preprocessor_config.json';
const TOKENIZER = 'tokenizer.json';
const SCORING = 'imatch.json';
const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
/** Where the chat template may be, as the crate looks for it: it tells checkpoints that think before they answer. */
const TEMPLATES = ['chat_template.jinja', 'chat_template.json', 'tokenizer_config.json'];

/** Most files of a model, as the crate's manifest has it. */
const MAX_FILES = 1000;

/** The files of a converted model, from its manifest: `files`, each with `path`, `bytes` and `sha256`. */
export async function converted(read: ReadText): Promise<Contents> {
  const text = await required(read, MANIFEST);
  const { files } = parsed(text, MANIFEST);
  if (!Array.isArray(files) || files.length === 0) throw wrong(`${MANIFEST}: lists no files`);
  if (files.length > MAX_FILES) throw wrong(`${MANIFEST}: lists ${files.length} files, at most ${MAX_FILES} are read`);
  const listed = files.map(manifestEntry);
  const twice = listed.find(({ name }, index) => listed.findIndex((other) => other.name === name) !== index);
  if (twice !== undefined) throw wrong(`${MANIFEST}: lists ${twice.name} twice`);
  return { form: 'converted', texts: { [MANIFEST]: text }, files: listed };
}

/** The files of a Hugging Face folder; safetensors are one file, or shards that an index names. */
export async function huggingFace(read: ReadText): Promise<Contents> {
  const texts: Record<string, string> = { [CONFIG]: await required(read, CONFIG) };
  texts[PREPROCESSOR] = await required(read, PREPROCESSOR);
  for (const name of [SCORING, INDEX]) {
    const text = await read(name);
    if (text !== null) texts[name] = text;
  }
  for (const name of SCORING in texts ? [] : TEMPLATES) {
    const text = await read(name);
    if (text === null) continue;
    texts[name] = text;
    break;
  }
  const index = texts[INDEX];
  const weights = index === undefined ? [WEIGHTS] : shards(index);
  const files = [TOKENIZER, ...weights].map((name) => ({ name, bytes: null, sha256: null }));
  return { form: 'hugging_face', texts, files };
}

/** The small files of a model as blobs. */
export function texts({ texts }: Pick<Contents, 'texts'>): NamedBlob[] {
  return Object.entries(texts).map(([name, text]) => ({ name, blob: new Blob([text]) }));
}

/** A name that stays inside the model's folder. */
export function isInside(name: string): boolean {
  const parts = name.split('/');
  return !/[\\?#:]|\p{Surrogate}/u.test(name) && parts.every((part) => part !== '' && part !== '.' && part !== '..');
}

export function isGguf(name: string): boolean {
  return name.toLowerCase().endsWith('.gguf');
}

/** What a GGUF model is called where its metadata do not say: its decoder's file, without llama.cpp's number of a part. */
export function ggufTitle(names: readonly string[]): string {
  const decoder = names.find((name) => !isProjector(name)) ?? names[0] ?? 'model.gguf';
  return decoder.replace(/\.gguf$/i, '').replace(/-\d+-of-\d+$/, '');
}

/** Name of a part of a split file, as llama.cpp's `llama_split_path` writes it. */
const PART = /^(.+)-(\d+)-of-(\d+)\.gguf$/i;

/** The names of all parts of the file that a name is a part of; null where it is none. */
export function partsOf(name: string): string[] | null {
  const [, base = '', number = '', count = ''] = PART.exec(name) ?? [];
  if (count === '' || Number(count) > MAX_FILES) return null;
  const part = (index: number) => `${base}-${String(index + 1).padStart(number.length, '0')}-of-${count}.gguf`;
  return Array.from({ length: Number(count) }, (_, index) => part(index));
}

/**
 * Whether .gguf files may be one model: two, or an mmproj file and parts of one decoder. Which of two is the decoder
 * and whether parts are missing is for the engine to say.
 */
export function isOneModel(names: readonly string[]): boolean {
  if (new Set(names).size !== names.length || names.length < 2) return false;
  const parts = names.filter((name) => !isProjector(name)).map((name) => PART.exec(name));
  const [first] = parts;
  const split = parts.every((part) => part !== null && part[1] === first?.[1] && part[3] === first?.[3]);
  return names.length === 2 || (parts.length === names.length - 1 && split);
}

/** What is wrong with files that are more than one model, or parts of several. */
export function notOneModel(paths: readonly string[]): string {
  const shown = paths.slice(0, 5).join(', ') + (paths.length > 5 ? ', …' : '');
  return `not one model: ${shown}; give one manifest.json or config.json, or an mmproj file and one decoder or all its parts`;
}

export function isProjector(name: string): boolean {
  return /mmproj/i.test(name);
}

function manifestEntry(entry: unknown): Listed {
  const { path, bytes, sha256 } = (entry ?? {}) as Record<string, unknown>;
  if (typeof path !== 'string' || typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
    throw wrong(`${MANIFEST}: a file without a path or a size`);
  }
  if (!isInside(path)) throw wrong(`${MANIFEST}: the path ${JSON.stringify(path)} leads outside the model's folder`);
  if (sha256 !== undefined && (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))) {
    throw wrong(`${MANIFEST}: sha256 of ${path} is not 64 lower-case hexadecimal digits`);
  }
  return { name: path, bytes, sha256: sha256 ?? null };
}

/** The values of `weight_map`, each once: the format that `save_pretrained` of transformers writes. */
function shards(index: string): string[] {
  const { weight_map: map } = parsed(index, INDEX);
  const names = new Set(typeof map === 'object' && map !== null ? Object.values(map as object) : []);
  if (names.size === 0) throw wrong(`${INDEX}: names no shards under weight_map`);
  if (names.size > MAX_FILES) throw wrong(`${INDEX}: names ${names.size} shards, at most ${MAX_FILES} are read`);
  return [...names].map((name: unknown) => {
    if (typeof name !== 'string' || !isInside(name)) {
      throw wrong(`${INDEX}: the shard ${JSON.stringify(name)} leads outside the model's folder`);
    }
    return name;
  });
}

async function required(read: ReadText, name: string): Promise<string> {
  const text = await read(name);
  if (text === null) throw wrong(`${name}: not among the model's files`);
  return text;
}

function parsed(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong(`${where}: not JSON`);
  }
  if (typeof value !== 'object' || value === null) throw wrong(`${where}: not a JSON object`);
  return value as Record<string, unknown>;
}

function wrong(message: string): ImatchError {
  return new ImatchError({ code: 'invalid_model', message });
}
