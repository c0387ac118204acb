import type { AdapterReport, ProbeReport } from '../protocol';

/** The engine binds whole weight tensors: WebGPU's guaranteed 128 MiB, which some adapters still undercut. */
const MIN_BINDING_BYTES = 128 * 1024 * 1024;
/** The engine's workgroups hold 256 invocations, what WebGPU guarantees outside compatibility mode. */
const MIN_INVOCATIONS = 256;
/** burn's wgpu runtime panics on wasm without it instead of returning an error. */
const FEATURE = 'timestamp-query';

/** Names under which software rasterisers report themselves. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|warp/i;

const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/**
 * Asks the browser for an adapter and says what would run. A software adapter counts as a GPU only where
 * `software` asks for it: the CPU back end is faster than a GPU that is emulated on the CPU.
 */
export async function preflight(software: boolean): Promise<ProbeReport> {
  const gpu = (navigator as Partial<WorkerNavigator>).gpu;
  if (gpu === undefined) return onCpu(false, null, 'this browser has no WebGPU, or has it switched off');
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  if (adapter === null) return onCpu(true, null, 'this browser has WebGPU but offers no graphics adapter for it');
  const report = describe(adapter);
  const lack = lacking(report, software);
  return lack === null ? { webgpu: true, adapter: report, device: 'gpu', reason: null } : onCpu(true, report, lack);
}

function onCpu(webgpu: boolean, adapter: AdapterReport | null, reason: string): ProbeReport {
  return { webgpu, adapter, device: 'cpu', reason };
}

function describe(adapter: GPUAdapter): AdapterReport {
  const info: Partial<GPUAdapterInfo> = adapter.info ?? {};
  const { vendor = '', architecture = '', description = '' } = info;
  const named = SOFTWARE.test(`${vendor} ${architecture} ${description}`);
  return {
    vendor,
    architecture,
    description,
    software: info.isFallbackAdapter === true || named,
    features: [...adapter.features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
  };
}

function lacking(report: AdapterReport, software: boolean): string | null {
  if (report.software && !software)
    return 'the only graphics adapter is emulated on the CPU, which is slower than the CPU itself';
  if (!report.features.includes(FEATURE))
    return `the graphics adapter lacks the feature ${FEATURE}, which the GPU path needs`;
  const { maxStorageBufferBindingSize: binding = 0, maxComputeInvocationsPerWorkgroup: invocations = 0 } =
    report.limits;
  if (binding < MIN_BINDING_BYTES)
    return `the graphics adapter binds ${binding >> 20} MiB at most, and 128 MiB are needed`;
  if (invocations < MIN_INVOCATIONS)
    return `the graphics adapter runs ${invocations} threads a workgroup, and 256 are needed`;
  return null;
}
