import { ERROR_CODES, type Device, type ErrorCode, type PlainError } from './protocol';

/** Every failure of the API: a sentence and a stable `code`. */
export class ImatchError extends Error {
  readonly code: ErrorCode;
  /** The device that was being started when loading failed. */
  readonly device: Device | undefined;

  constructor({ code, message, device }: PlainError) {
    super(message);
    this.name = code === 'aborted' ? 'AbortError' : 'ImatchError';
    this.code = code;
    this.device = device;
  }
}

export function aborted(): ImatchError {
  return new ImatchError({ code: 'aborted', message: 'stopped on request' });
}

/** Anything thrown, in the form that can cross between a worker and the page. */
export function plain(thrown: unknown): PlainError {
  const place = thrown instanceof ImatchError && thrown.device !== undefined ? { device: thrown.device } : {};
  if (thrown instanceof DOMException && thrown.name === 'AbortError') {
    return { code: 'aborted', message: 'stopped on request', ...place };
  }
  const code: unknown = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
  return { code: isErrorCode(code) ? code : 'internal', message: messageOf(thrown), ...place };
}

export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function isErrorCode(code: unknown): code is ErrorCode {
  return (ERROR_CODES as readonly unknown[]).includes(code);
}

/** `promise`, or the abort if that comes first. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(aborted());
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
