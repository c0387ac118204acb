import { cpSync, existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Connect, type Plugin } from 'vite';

/**
 * Other origins that models may be downloaded from, such as 'https://models.example.org'. A host that keeps its
 * models elsewhere names that place here, or sends DOWNLOADER_POLICY with it for the downloader's script by its own
 * means: the page and the scorer, which see the pictures, still reach no server but their own.
 */
const MODEL_ORIGINS: readonly string[] = [];

/**
 * What the page and the scorer may do. The same text stands in index.html as <meta>, for hosts that send no headers;
 * a worker takes its policy from the headers of its own script, so both servers below send it with everything.
 */
export const POLICY = policy(["'self'"]);

/** What the downloader may do, which never sees a picture. */
export const DOWNLOADER_POLICY = policy(["'self'", ...MODEL_ORIGINS]);

function policy(connections: readonly string[]): string {
  return [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self'",
    `connect-src ${connections.join(' ')}`,
    "img-src 'self' blob: data:",
    "style-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
}

/** The downloader's script, as it is served in development and as it is built. */
const DOWNLOADER = /\/(src\/downloader\.ts|assets\/downloader-[^/]*\.js)$/;

/** Headers of everything that is served. */
function headers(): Plugin {
  const send: Connect.NextHandleFunction = (request, response, next) => {
    const path = request.url?.split('?')[0] ?? '';
    response.setHeader('Content-Security-Policy', DOWNLOADER.test(path) ? DOWNLOADER_POLICY : POLICY);
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Referrer-Policy', 'no-referrer');
    next();
  };
  return {
    name: 'headers',
    configureServer: ({ middlewares }) => void middlewares.use(send),
    configurePreviewServer: ({ middlewares }) => void middlewares.use(send),
  };
}

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Folders that are fetched by name at run time: served from where they lie, copied as they are, without content hashes. */
function copy(folders: Record<string, string>, outDir: string): Plugin {
  return {
    name: 'copy',
    configureServer(server) {
      server.middlewares.use((request, _response, next) => {
        const moved = Object.entries(folders).find(([, to]) => request.url?.startsWith(`/${to}/`));
        if (moved !== undefined) request.url = `/${moved[0]}${request.url?.slice(moved[1].length + 1)}`;
        next();
      });
    },
    closeBundle() {
      for (const [from, to] of Object.entries(folders)) {
        if (existsSync(here(from))) cpSync(here(from), here(`${outDir}/${to}`), { recursive: true });
      }
    },
  };
}

/** `--mode mock` swaps the wasm module and the models for small pretenders, for work on the page and its tests. */
export default defineConfig(({ mode }) => {
  const mock = mode === 'mock';
  const outDir = mock ? 'dist-mock' : 'dist';
  const folders = mock ? { samples: 'samples', 'mock/models': 'models' } : { samples: 'samples', models: 'models' };
  return {
    root: here('.'),
    base: './',
    appType: 'mpa',
    publicDir: 'public',
    resolve: { alias: { 'imatch-wasm': here(mock ? 'mock/imatch.ts' : 'pkg/imatch.js') } },
    server: { host: '127.0.0.1' },
    preview: { host: '127.0.0.1' },
    worker: { format: 'es' as const },
    plugins: [headers(), copy(folders, outDir)],
    build: {
      outDir,
      target: 'es2022',
      modulePreload: { polyfill: false },
      rolldownOptions: {
        input: {
          index: here('index.html'),
          imatch: here('src/client.ts'),
          'imatch-score': here('src/elements/imatch-score.ts'),
        },
        preserveEntrySignatures: 'exports-only' as const,
        output: {
          entryFileNames: (chunk) => (chunk.name.startsWith('imatch') ? '[name].js' : 'assets/[name]-[hash].js'),
        },
      },
    },
  };
});
