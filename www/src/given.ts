/** Models that are given as files: dropped, chosen, or a whole folder of them. */
import { ImatchError, messageOf } from './error';
import {
  CONFIG,
  MANIFEST,
  converted,
  ggufTitle,
  huggingFace,
  isGguf,
  texts,
  type Contents,
  type Listed,
  type ReadText,
} from './forms';
import type { NamedBlob } from './protocol';

/** A model has a few dozen files; a folder of thousands was chosen by mistake. */
const MAX_GIVEN = 5000;

/** A model among given files. */
export interface Found {
  /** What it is called where its files do not say. */
  readonly name: string;
  readonly files: readonly NamedBlob[];
}

/** The files of the one model among those given; fails in one sentence where there is none, or more than one. */
export async function fromFiles(given: Iterable<File>): Promise<Found> {
  const files = new Map<string, File>();
  for (const file of given) {
    files.set(file.webkitRelativePath || file.name, file);
    if (files.size > MAX_GIVEN) throw wrong(`more than ${MAX_GIVEN} files were given, and a model has a few dozen`);
  }
  const paths = [...files.keys()];
  const named = (name: string) => paths.filter((path) => baseName(path) === name).sort(byDepth)[0];
  const manifest = named(MANIFEST);
  if (manifest !== undefined) return folder(files, manifest, converted);
  const config = named(CONFIG);
  // Collections of .gguf files often have the configuration beside them that they were made from.
  const weights = paths.some((path) => path.endsWith('.safetensors')) || !paths.some(isGguf);
  return config !== undefined && weights ? folder(files, config, huggingFace) : pair(files);
}

/** Two .gguf files; which is the decoder is written in them. */
function pair(files: ReadonlyMap<string, File>): Found {
  const found = [...files.values()].filter(({ name }) => isGguf(name));
  if (found.length === 2 && found[0]?.name !== found[1]?.name) {
    const names = found.map(({ name }) => name);
    return { name: ggufTitle(names), files: found.map((file) => ({ name: file.name, blob: file })) };
  }
  if (found.length === 1) {
    throw wrong(`${found[0]?.name} came alone: a GGUF model has two files, the decoder and the mmproj file`);
  }
  if (found.length > 1) throw wrong(`${found.length} .gguf files were given, and a model has two of different names`);
  const names = [...files.keys()].slice(0, 3).join(', ');
  throw wrong(
    `no model among the files given (${names || 'none'}): it takes ${MANIFEST} or ${CONFIG} with the files beside it, or two .gguf files`,
  );
}

async function folder(
  files: ReadonlyMap<string, File>,
  root: string,
  list: (read: ReadText) => Promise<Contents>,
): Promise<Found> {
  const start = root.slice(0, root.length - baseName(root).length);
  const read = async (name: string) =>
    (await files
      .get(start + name)
      ?.text()
      .catch((e) => unreadable(name, e))) ?? null;
  const contents = await list(read);
  const listed = contents.files.map((listed) => present(listed, files.get(start + listed.name)));
  // Files that were chosen one by one have no folder.
  return { name: start.split('/').at(-2) || 'model', files: [...texts(contents), ...listed] };
}

function present({ name, bytes }: Listed, blob: File | undefined): NamedBlob {
  if (blob === undefined) throw wrong(`${name}: part of the model, and not among the files given`);
  if (bytes !== null && blob.size !== bytes) {
    throw new ImatchError({
      code: 'integrity',
      message: `${name}: ${blob.size} bytes, the manifest promises ${bytes}`,
    });
  }
  return { name, blob };
}

function byDepth(a: string, b: string): number {
  const depth = (path: string) => path.split('/').length;
  return depth(a) - depth(b);
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function unreadable(name: string, thrown: unknown): never {
  throw new ImatchError({ code: 'io', message: `${name}: could not be read: ${messageOf(thrown)}` });
}

function wrong(message: string): ImatchError {
  return new ImatchError({ code: 'invalid_model', message });
}
