import { ImatchError } from '../error';
import type { PlainError } from '../protocol';

const devices = new Set<GPUDevice>();
let failure: PlainError | null = null;
let report: (failure: PlainError) => void = () => undefined;

/**
 * Watches every GPU device that is asked for from now on, whoever asks. A device that once reported an error goes
 * on returning results, wrong ones: the first error of any device is final, and `onFailure` hears of it.
 */
export function watchDevices(onFailure: (failure: PlainError) => void): void {
  report = onFailure;
  const prototype = (globalThis as { GPUAdapter?: typeof GPUAdapter }).GPUAdapter?.prototype;
  if (prototype === undefined) return;
  const { requestDevice } = prototype;
  prototype.requestDevice = async function (this: GPUAdapter, descriptor?: GPUDeviceDescriptor) {
    return watched(await requestDevice.call(this, descriptor));
  };
}

/** No failure counts any more: the devices are about to be given back. */
export function unwatchDevices(): void {
  devices.clear();
}

/**
 * Waits until the devices have said everything about what was asked of them so far, and throws if one of them
 * reported an error. A result that was read before is worth nothing then.
 */
export async function settled(): Promise<void> {
  await Promise.all([...devices].map(fence));
  if (failure !== null) throw new ImatchError(failure);
}

/** An empty error scope comes back after the reports of all work before it; other code cannot get in between. */
async function fence(device: GPUDevice): Promise<void> {
  device.pushErrorScope('validation');
  await device.popErrorScope().catch(() => undefined);
}

function watched(device: GPUDevice): GPUDevice {
  devices.add(device);
  const fail = (found: PlainError) => {
    if (failure !== null || !devices.has(device)) return;
    failure = found;
    report(found);
  };
  device.addEventListener('uncapturederror', ({ error }) => fail(inWords(error)));
  void device.lost.then(({ message }) =>
    fail({ code: 'device_lost', message: `the GPU device was lost${message === '' ? '' : `: ${oneLine(message)}`}` }),
  );
  return device;
}

function inWords(error: GPUError): PlainError {
  return error instanceof GPUOutOfMemoryError
    ? { code: 'out_of_memory', message: `the GPU ran out of memory: ${oneLine(error.message)}` }
    : { code: 'device', message: `the GPU reported an error: ${oneLine(error.message)}` };
}

function oneLine(text: string): string {
  return text.trim().replace(/\s+/g, ' ');
}
