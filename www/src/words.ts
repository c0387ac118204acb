/** The page's words for stages, failures and numbers. */
import type { Kept } from './models';
import type { ErrorCode, ModelForm, Progress, Stage } from './protocol';

const STAGES: Record<Stage, string> = {
  program: 'Starting the scoring program',
  download: 'Downloading the model',
  verify: 'Checking the model’s files',
  upload: 'Moving the model onto the device',
  compile: 'Preparing the device',
  selftest: 'Checking that the device computes correctly',
  image: 'Looking at the picture',
  questions: 'Answering the questions',
};

const BYTE_STAGES: ReadonlySet<Stage> = new Set<Stage>(['download', 'verify', 'upload']);

export function stage(progress: Progress | null): string {
  return progress === null ? 'Getting ready' : STAGES[progress.stage];
}

/** How far a stage is, as text; empty where nothing is known. */
export function extent({ stage, loaded, total }: Progress): string {
  if (total <= 0) return '';
  return BYTE_STAGES.has(stage) ? `${megabytes(loaded)} of ${megabytes(total)} MB` : `${loaded} of ${total}`;
}

export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/** A size as people say it. */
export function size(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${megabytes(bytes)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

export const FORMS: Readonly<Record<ModelForm, string>> = {
  converted: 'converted',
  gguf: 'GGUF pair',
  hugging_face: 'Hugging Face folder',
};

/** Where a model's files are, as a clause. */
export function place({ kind, reason, persisted }: Kept): string {
  const why = reason === null ? '' : ` (${reason})`;
  if (kind === 'files') return 'read from your files';
  if (kind === 'memory') return `kept in memory until this page is closed${why}`;
  return `kept in this browser${persisted === false ? ', which may clear it when the disk is full' : ''}${why}`;
}

export function percent(probability: number): string {
  const value = probability * 100;
  if (value > 0 && value < 1) return '< 1 %';
  if (value > 99 && value < 100) return '> 99 %';
  return `${Math.round(value)} %`;
}

export function duration(ms: number): string {
  if (ms < 1) return '< 1 ms';
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

interface Explanation {
  readonly title: string;
  readonly advice: string;
}

const FAILURES: Record<ErrorCode, Explanation> = {
  invalid_input: { title: 'The form needs a change', advice: '' },
  invalid_image: {
    title: 'This picture cannot be read',
    advice: 'PNG, JPEG and WebP files work. Try saving it again in one of these.',
  },
  invalid_model: {
    title: 'The model’s files do not fit together',
    advice: 'They were put together wrongly; trying again will not help.',
  },
  integrity: {
    title: 'The model’s files are not the promised ones',
    advice:
      'Their size or checksum differs, so nothing is scored with them. Score again to fetch damaged files anew, or change the model.',
  },
  unsupported: { title: 'This cannot be done here', advice: 'A recent browser, a GPU or another model may do it.' },
  io: { title: 'A file could not be read', advice: 'Choose it again; a stored model is fetched again by scoring again.' },
  network: { title: 'The model could not be fetched', advice: 'Check the connection, then score again.' },
  quota: {
    title: 'There is not enough room for the model',
    advice: 'Remove a stored model, or free space on this machine.',
  },
  out_of_memory: {
    title: 'The GPU has not enough memory',
    advice: 'Choose the CPU, close what else uses the GPU, or take a smaller model.',
  },
  device: { title: 'The GPU cannot be used', advice: 'Choose Automatic or CPU: the scores are the same, only slower.' },
  device_lost: { title: 'The GPU stopped working', advice: 'Score again to start it afresh, or choose the CPU.' },
  self_test: {
    title: 'This device computes wrong results',
    advice: 'A score is shown only by a device that passes a check. Choose the CPU.',
  },
  aborted: { title: 'Stopped', advice: '' },
  internal: { title: 'Something broke inside imatch', advice: 'Score again to start afresh.' },
};

export function failure(code: ErrorCode): Explanation {
  return FAILURES[code];
}

/** A sentence of the engine, which starts in lower case and has no full stop, as a sentence of the page. */
export function sentence(text: string): string {
  if (text === '') return '';
  // The name of a file stays as it is.
  const start = /^\S+\.\w/.test(text) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return `${start}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}
