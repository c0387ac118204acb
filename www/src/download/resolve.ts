/** From the addresses that name a model to the files that it consists of. */
import { ImatchError } from '../error';
import {
  CONFIG,
  converted,
  ggufTitle,
  huggingFace,
  isGguf,
  isOneModel,
  isProjector,
  notOneModel,
  partsOf,
  type Contents,
  type Listed,
} from '../forms';
import type { ModelForm } from '../protocol';
import type { Wanted } from './fetch';
import {
  Exchange,
  Page,
  Refused,
  Temporary,
  insist,
  nameOf,
  refusePage,
  refused,
  versionOf,
  type Manner,
  type Version,
} from './http';

/** A file of a plan. */
export type Planned = Wanted;

/** What a model at given addresses consists of. */
export interface Plan {
  readonly key: string;
  readonly addresses: readonly string[];
  readonly name: string;
  readonly form: ModelForm;
  /** Small files, whole. */
  readonly texts: Readonly<Record<string, string>>;
  readonly files: readonly Planned[];
}

/** Longest small file that is read. */
const MAX_TEXT_BYTES = 8 * 1024 * 1024;
const GONE: ReadonlySet<number> = new Set([404, 410]);
/** What servers answer that take no HEAD, or not from everybody. */
const NO_HEAD: ReadonlySet<number> = new Set([403, 405, 501]);

export function keyOf(addresses: readonly string[]): string {
  return [...addresses].sort().join(' ');
}

/** Asks the servers for a model's small files and for the size and version of those that no digest describes. */
export async function resolve(addresses: readonly string[], manner: Manner): Promise<Plan> {
  const first = addresses[0];
  if (addresses.length === 1 && first !== undefined && !isGguf(new URL(first).pathname)) return folder(first, manner);
  return pair(addresses, manner);
}

/** The size and version of a file; null where there is none. */
export async function peek(url: string, manner: Manner): Promise<Version | null> {
  const response = await answer(url, { method: 'HEAD' }, manner);
  if (GONE.has(response.status)) return null;
  const version = response.ok ? versionOf(response) : null;
  if (version !== null && version.bytes !== null) return version;
  if (version === null && !NO_HEAD.has(response.status)) throw refused(url, response);
  // A part is neither compressed nor asked for by HEAD, and says how long the whole is.
  const first = await answer(url, { headers: { Range: 'bytes=0-0' } }, manner);
  if (GONE.has(first.status)) return null;
  if (first.ok) return versionOf(first);
  // An empty file has no first byte.
  if (version !== null) return version;
  throw refused(url, first);
}

/** The head of an answer that another try would not change. */
function answer(url: string, init: RequestInit, manner: Manner): Promise<Response> {
  return insist(manner, async () => {
    const exchange = await Exchange.open(url, init, manner);
    exchange.cancel();
    const { response } = exchange;
    const refusal = response.ok ? null : refused(url, response);
    if (refusal instanceof Temporary) throw refusal;
    refusePage(url, response);
    return response;
  });
}

/** A converted model or a Hugging Face folder: everything lies beside the one address. */
async function folder(address: string, manner: Manner): Promise<Plan> {
  const own = nameOf(address);
  const read = (name: string) => text(beside(address, name), manner).catch(unlessPage);
  const contents: Contents =
    own === CONFIG
      ? await huggingFace((name) => (name === CONFIG ? required(address, manner) : read(name)))
      : await converted(() => required(address, manner));
  const files = await Promise.all(
    contents.files.map((listed) => planned(listed, beside(address, listed.name), manner)),
  );
  return { key: keyOf([address]), addresses: [address], name: titleOf(address, contents), ...contents, files };
}

/** A GGUF model: its mmproj file, and its decoder in one file or in parts. */
async function pair(addresses: readonly string[], manner: Manner): Promise<Plan> {
  const stray = addresses.find((address) => !isGguf(new URL(address).pathname));
  if (stray !== undefined) throw invalid(`${nameOf(stray)}: a list of addresses is taken for .gguf files`);
  const [one] = addresses;
  if (one === undefined) throw invalid('no address was given');
  const parts = partsOf(nameOf(one))?.map((name) => beside(one, name)) ?? [one];
  const urls = addresses.length === 1 ? [...parts, await projector(one, manner)] : addresses;
  if (!isOneModel(urls.map(nameOf))) throw invalid(notOneModel(urls));
  const files = await Promise.all(
    urls.map((url) => planned({ name: nameOf(url), bytes: null, sha256: null }, url, manner)),
  );
  const name = ggufTitle(files.map(({ name }) => name));
  return { key: keyOf(addresses), addresses, name, form: 'gguf', texts: {}, files };
}

/** The mmproj file beside a decoder, under the names that `imatch convert` and llama.cpp's converters give it. */
async function projector(decoder: string, manner: Manner): Promise<string> {
  const name = `${ggufTitle([nameOf(decoder)])}.gguf`;
  if (isProjector(name)) throw invalid(`${name}: an mmproj file; give the decoder's address, or both`);
  const stem = name.replace(/[-.](?:i?q\d\w*|bf16|f16|f32)?\.gguf$/i, '');
  const types = ['F16', 'f16', 'BF16', 'Q8_0'].flatMap((type) => [
    `mmproj-${stem}-${type}.gguf`,
    `mmproj-${type}.gguf`,
  ]);
  const candidates = new Set([name.replace(/^model/, 'mmproj'), `mmproj-${name}`, ...types]);
  candidates.delete(name);
  for (const candidate of candidates) {
    const url = beside(decoder, candidate);
    // Some servers do not tell that a file is not there: they forbid it.
    if (await peek(url, manner).catch(unlessRefused)) return url;
  }
  throw invalid(`${name}: no mmproj file of a known name lies beside it; give both addresses`);
}

/** A file that need not be there, from a server that sends a page for whatever is not. */
function unlessPage(error: unknown): null {
  if (error instanceof Page) return null;
  throw error;
}

function unlessRefused(error: unknown): null {
  if (error instanceof Refused) return null;
  throw error;
}

async function planned({ name, bytes, sha256 }: Listed, url: string, manner: Manner): Promise<Planned> {
  if (sha256 !== null && bytes !== null) return { name, url, bytes, sha256, version: null };
  const version = await peek(url, manner);
  if (version === null) throw new ImatchError({ code: 'network', message: `${name}: the server answered 404` });
  return { name, url, bytes, sha256, version };
}

async function required(url: string, manner: Manner): Promise<string> {
  const found = await text(url, manner);
  if (found === null) throw new ImatchError({ code: 'network', message: `${nameOf(url)}: the server answered 404` });
  return found;
}

/** A small file, whole; null where there is none. */
function text(url: string, manner: Manner): Promise<string | null> {
  return insist(manner, async () => {
    const exchange = await Exchange.open(url, {}, manner);
    try {
      if (GONE.has(exchange.response.status)) return null;
      if (!exchange.response.ok) throw refused(url, exchange.response);
      refusePage(url, exchange.response);
      return new TextDecoder().decode(await exchange.bytes(MAX_TEXT_BYTES));
    } finally {
      exchange.cancel();
    }
  });
}

/** The address of a file in the same folder. */
function beside(address: string, name: string): string {
  return new URL(name.split('/').map(encodeURIComponent).join('/'), new URL('.', address)).href;
}

/** What a manifest calls its model; else the folder's name or, at a hub (`NAME/resolve/REVISION/`), the repository's. */
function titleOf(address: string, { form, texts }: Contents): string {
  const name: unknown =
    form === 'converted' ? (JSON.parse(Object.values(texts)[0] ?? '{}') as { name?: unknown }).name : null;
  if (typeof name === 'string' && name !== '') return name;
  return nameOf(new URL('.', address).href.replace(/(\/resolve\/[^/]+)?\/$/, ''));
}

function invalid(message: string): ImatchError {
  return new ImatchError({ code: 'invalid_input', message });
}
