import type { Device, ErrorCode, PlainError } from '../protocol';

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  'invalid_input',
  'invalid_image',
  'invalid_model',
  'integrity',
  'unsupported',
  'io',
  'network',
  'device',
  'device_lost',
  'self_test',
  'aborted',
  'internal',
]);

/** A failure that the worker itself notices, with the same codes as those of the wasm module. */
export class Failure extends Error {
  readonly code: ErrorCode;
  /** The device that was being started. */
  readonly device: Device | undefined;

  constructor(code: ErrorCode, message: string, device?: Device) {
    super(message);
    this.code = code;
    this.device = device;
  }
}

/** Whether a thrown value means that the wasm instance can no longer be used: a trap leaves its memory as it was. */
export function isTrap(thrown: unknown): boolean {
  return thrown instanceof WebAssembly.RuntimeError;
}

/** Anything thrown, in the form that can cross to the page. */
export function plain(thrown: unknown): PlainError {
  const place = thrown instanceof Failure && thrown.device !== undefined ? { device: thrown.device } : {};
  if (thrown instanceof DOMException && thrown.name === 'AbortError') {
    return { code: 'aborted', message: 'stopped on request', ...place };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const code: unknown = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
  return { code: typeof code === 'string' && CODES.has(code) ? (code as ErrorCode) : 'internal', message, ...place };
}
