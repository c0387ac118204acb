/**
 * The downloader: all of the network and all of the storage. It never sees a picture, so that its policy may be
 * wider than the scorer's. One serves the whole page.
 */
import { download } from './download/library';
import { examine } from './download/ranges';
import { list, recheck, remove, usage } from './download/shelf';
import { answerReads } from './port';
import type { DownloaderCalls } from './protocol';
import { serve } from './worker/jobs';

serve<DownloaderCalls>({
  download: ({ planned, ...origin }, { signal, onProgress }) =>
    download(origin, { patience: origin.patience, signal, onProgress }, planned),
  async examine({ port, ...origin }, { signal }) {
    const { name, files, missing, planned, read } = await examine(origin, { patience: origin.patience, signal });
    answerReads(port, read);
    return { name, files, missing, planned };
  },
  recheck: (origin, { signal }) => recheck(origin, signal),
  list: () => list(),
  async remove({ key }) {
    await remove(key);
    return null;
  },
  usage: () => usage(),
  policy: ({ script }, { signal }) => hasPolicy(script, signal),
});

/** How long the answer about a policy is waited for; the model is ready by then. */
const POLICY_MS = 5000;

/** Whether the server sends a script with a policy, as the page's own does not bind a worker. */
async function hasPolicy(script: string, stop: AbortSignal): Promise<boolean> {
  const late = new AbortController();
  const end = () => late.abort();
  const timer = setTimeout(end, POLICY_MS);
  stop.addEventListener('abort', end, { once: true });
  const response = await fetch(script, { method: 'HEAD', signal: late.signal }).catch(() => null);
  clearTimeout(timer);
  const policy = response?.headers.get('Content-Security-Policy') ?? '';
  return /connect-src 'self'(;|$)/.test(policy);
}
