// How the page is built: everything into dist/, which the server embeds; nothing inline, nothing from elsewhere.
import { gzipSync } from 'node:zlib';

import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

/** The server behind `npm run dev`. It sees the Host that the browser named, or it would take the page for a foreign one. */
const SERVER = { target: process.env.ZBL_HTTP ?? 'http://127.0.0.1:8080', changeOrigin: false };

/** Each text a second time, gzipped: the server hands that out as it is, and so needs no compressor of its own. */
const gzipped: Plugin = {
    name: 'gzipped',
    apply: 'build',
    enforce: 'post',
    generateBundle(_, bundle) {
        for (const [name, made] of Object.entries(bundle)) {
            if (/\.(css|html|js|svg)$/.test(name)) {
                const source = gzipSync(made.type === 'chunk' ? made.code : made.source, { level: 9 });
                this.emitFile({ type: 'asset', fileName: `${name}.gz`, source });
            }
        }
    },
};

export default defineConfig({
    base: './',
    plugins: [gzipped],
    build: {
        target: 'es2022',
        // A file of its own for everything: data: URLs and inline modules are not allowed by the page's policy.
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
        chunkSizeWarningLimit: 1200,
    },
    esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
    server: { proxy: { '/zbl.v1.': SERVER, '/source/': SERVER } },
    test: { include: ['test/**/*.test.ts', 'test/**/*.test.tsx'] },
});
