// How the page is built: everything into dist/, which the server embeds; nothing inline, nothing from elsewhere.
import { gzipSync } from 'node:zlib';

import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

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
    // `npm run dev` beside a server on its usual port.
    server: { proxy: { '/zbl.v1.': 'http://127.0.0.1:8080', '/source/': 'http://127.0.0.1:8080' } },
    test: { include: ['test/**/*.test.ts', 'test/**/*.test.tsx'] },
});
