import { ImatchError, messageOf } from '../error';
import { MAX_GIVEN } from '../given';

/** The files that were dropped, those in folders included, with `webkitRelativePath` as a folder input sets it. */
export async function droppedFiles({ items, files }: DataTransfer): Promise<File[]> {
  // The list of items is empty after the first pause, so that the entries are taken before it.
  const entries = [...items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return [...files];
  const found: File[] = [];
  for (const entry of entries) if (entry !== null) await walk(entry, found);
  return found;
}

async function walk(entry: FileSystemEntry, found: File[]): Promise<void> {
  // One too many is enough to be refused for it.
  if (found.length > MAX_GIVEN) return;
  if (isFile(entry)) found.push(await fileOf(entry));
  if (isFolder(entry)) for (const inner of await children(entry)) await walk(inner, found);
}

async function fileOf(entry: FileSystemFileEntry): Promise<File> {
  const file = await new Promise<File>((resolve, reject) => entry.file(resolve, reject)).catch(
    (error: unknown) => unreadable(entry, error),
  );
  Object.defineProperty(file, 'webkitRelativePath', { value: entry.fullPath.replace(/^\//, '') });
  return file;
}

/** A reader gives a folder in portions and ends with an empty one. */
async function children(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject)).catch(
      (error: unknown) => unreadable(folder, error),
    );
    if (some.length === 0) return all;
    all.push(...some);
  }
}

function unreadable({ fullPath }: FileSystemEntry, thrown: unknown): never {
  const message = `could not read ${fullPath.replace(/^\//, '')}: ${messageOf(thrown)}`;
  throw new ImatchError({ code: 'io', message });
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}

function isFolder(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory;
}
