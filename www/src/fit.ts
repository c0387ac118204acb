import type { Device, Inspection, ProbeReport } from './protocol';

/** Whether a model will run in this browser, and on what. */
export interface Fit {
  /** What it should be loaded on; null where neither will do. */
  readonly device: Device | null;
  /** The same in one or two plain sentences. */
  readonly sentence: string;
}

/** A tab's wasm memory ends at 4 GiB; a quarter is kept for pictures, activations and what loading takes for a moment. */
const TAB_BYTES = 3 * 1024 ** 3;

/**
 * Compares what a model needs with what the adapter allows. WebGPU does not tell how much memory a GPU has, so a
 * model that passes may still be too large for it; one that does not pass certainly is.
 */
export function fit(inspection: Inspection, report: ProbeReport): Fit {
  const { device_bytes: needs, host_bytes: host, name } = inspection;
  const lack = report.device === 'gpu' ? gpuLack(inspection, report) : (report.reason ?? 'there is no GPU to use');
  if (lack === null) {
    return {
      device: 'gpu',
      sentence: `${name} fits the GPU’s limits and takes about ${size(needs.gpu)} of its memory.`,
    };
  }
  const tooMuch = cpuLack(inspection);
  if (tooMuch === null) {
    const cpu = size(needs.cpu + host);
    return { device: 'cpu', sentence: `${name} will run on the CPU with about ${cpu} of memory: ${lack}.` };
  }
  const advice =
    inspection.quantization === 'q4_0' ? 'A smaller model would fit' : 'A smaller quantisation, such as q4_0, may fit';
  return {
    device: null,
    sentence: `${name} does not fit: ${lack}, and ${tooMuch}. ${advice}.`,
  };
}

/** Why a model cannot run on the CPU of a browser; null where it can. */
export function cpuLack({ device_bytes: needs, host_bytes: host }: Inspection): string | null {
  const bytes = needs.cpu + host;
  return bytes <= TAB_BYTES ? null : `on the CPU it takes ${size(bytes)} of the ${size(TAB_BYTES)} that a tab can hold`;
}

/** Why a model cannot run on an adapter; null where it can, as far as the adapter tells. */
export function gpuLack(
  { largest_binding_bytes: largest, host_bytes: host }: Inspection,
  { adapter }: Pick<ProbeReport, 'adapter'>,
): string | null {
  if (host > TAB_BYTES) return `${size(host)} of it stay outside the GPU, and a tab can hold ${size(TAB_BYTES)}`;
  const { maxStorageBufferBindingSize = 0, maxBufferSize = 0 } = adapter?.limits ?? {};
  const most = Math.min(maxStorageBufferBindingSize, maxBufferSize);
  if (largest <= most) return null;
  return `its largest tensor takes ${size(largest)}, and this GPU binds ${size(most)} at most`;
}

function size(bytes: number): string {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
