/** Models that are given as files: dropped, chosen, or a whole folder of them. */
import { ImatchError, messageOf } from './error';
import { CONFIG, MANIFEST, converted, huggingFace, isGguf, texts, type Listed } from './forms';
import type { NamedBlob } from './protocol';

/** A model has a few dozen files; a folder of thousands was chosen by mistake. */
const MAX_GIVEN = 5000;

/** The files of the one model among those given; fails in one sentence where there is none, or more than one. */
export async function fromFiles(given: Iterable<File>): Promise<NamedBlob[]> {
  const files = new Map<string, File>();
  for (const file of given) {
    files.set(file.webkitRelativePath || file.name, file);
    if (files.size > MAX_GIVEN) throw wrong(`more than ${MAX_GIVEN} files were given, and a model has a few dozen`);
  }
  const root = [...files.keys()].filter((path) => [MANIFEST, CONFIG].includes(baseName(path))).sort(byDepth)[0];
  return root === undefined ? pair(files) : folder(files, root);
}

/** Two .gguf files; which is the decoder is written in them. */
function pair(files: ReadonlyMap<string, File>): NamedBlob[] {
  const found = [...files.values()].filter(({ name }) => isGguf(name));
  if (found.length === 2 && found[0]?.name !== found[1]?.name) {
    return found.map((file) => ({ name: file.name, blob: file }));
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

async function folder(files: ReadonlyMap<string, File>, root: string): Promise<NamedBlob[]> {
  const start = root.slice(0, root.length - baseName(root).length);
  const read = async (name: string) => (await files.get(start + name)?.text().catch((e) => unreadable(name, e))) ?? null;
  const contents = await (files.has(start + MANIFEST) ? converted(read) : huggingFace(read));
  return [...texts(contents), ...contents.files.map((listed) => ({ ...listed, blob: files.get(start + listed.name) })).map(present)];
}

function present({ name, bytes, blob }: Listed & { readonly blob: File | undefined }): NamedBlob {
  if (blob === undefined) throw wrong(`${name}: part of the model, and not among the files given`);
  if (bytes !== null && blob.size !== bytes) {
    throw new ImatchError({ code: 'integrity', message: `${name}: ${blob.size} bytes, the manifest promises ${bytes}` });
  }
  return { name, blob };
}

function byDepth(a: string, b: string): number {
  const depth = (path: string) => path.split('/').length;
  // A converted model may lie beside the configuration that it was made from.
  return depth(a) - depth(b) || Number(baseName(a) !== MANIFEST) - Number(baseName(b) !== MANIFEST);
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
