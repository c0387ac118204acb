/** Models that are given as files: dropped, chosen, or a whole folder of them. */
import { ImatchError, messageOf } from './error';
import {
  CONFIG,
  MANIFEST,
  converted,
  ggufTitle,
  huggingFace,
  isGguf,
  isOneModel,
  notOneModel,
  texts,
  type Contents,
  type Listed,
  type ReadText,
} from './forms';
import type { NamedBlob } from './protocol';

/** A model has a few dozen files; a folder of thousands was chosen by mistake. */
export const MAX_GIVEN = 5000;

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
  const named = (name: string) => paths.filter((path) => baseName(path) === name);
  // Collections of .gguf files often have the configuration beside them that they were made from.
  const weights = paths.some((path) => path.endsWith('.safetensors')) || !paths.some(isGguf);
  const roots = [...named(MANIFEST), ...(weights ? named(CONFIG) : [])];
  // Folders inside a model's own may hold anything.
  const depth = Math.min(...roots.map(depthOf));
  const [root, ...others] = roots.filter((path) => depthOf(path) === depth);
  if (root === undefined) return pair(files);
  const elsewhere = (path: string) => !path.startsWith(folderOf(root));
  const strangers = [...others.filter(elsewhere), ...paths.filter((path) => isGguf(path) && elsewhere(path))];
  if (strangers.length > 0) throw wrong(notOneModel([root, ...strangers]));
  return folder(files, root, baseName(root) === MANIFEST ? converted : huggingFace);
}

/** A GGUF model: its mmproj file, and its decoder in one file or in parts. */
function pair(files: ReadonlyMap<string, File>): Found {
  const found = [...files.values()].filter(({ name }) => isGguf(name));
  const names = found.map(({ name }) => name);
  if (isOneModel(names)) {
    return { name: ggufTitle(names), files: found.map((file) => ({ name: file.name, blob: file })) };
  }
  if (found.length === 1) {
    throw wrong(`${found[0]?.name} came alone: a GGUF model has two files, the decoder and the mmproj file`);
  }
  if (found.length > 1) throw wrong(notOneModel([...files.keys()].filter(isGguf)));
  const shown = [...files.keys()].slice(0, 3).join(', ');
  throw wrong(
    `no model among the files given (${shown || 'none'}): it takes ${MANIFEST} or ${CONFIG} with the files beside it, or two .gguf files`,
  );
}

async function folder(
  files: ReadonlyMap<string, File>,
  root: string,
  list: (read: ReadText) => Promise<Contents>,
): Promise<Found> {
  const start = folderOf(root);
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

function depthOf(path: string): number {
  return path.split('/').length;
}

/** Empty, or with a slash at its end. */
function folderOf(path: string): string {
  return path.slice(0, path.length - baseName(path).length);
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
