// A line to paste elsewhere, with a button that copies it.
import { useSignal } from '@preact/signals';

import { words } from './words';

const text = words({
    en: { copy: 'Copy', copied: 'Copied', not: 'Select and copy it by hand' },
    zh: { copy: '复制', copied: '已复制', not: '请手动选中复制' },
});

export function Copyable({ line, name }: { readonly line: string; readonly name: string }) {
    // The line that was copied: another one is not.
    const copied = useSignal('');
    const failed = useSignal('');
    const copy = (): void => {
        // Outside localhost the clipboard is there with https only.
        const clipboard = navigator.clipboard as Clipboard | undefined;
        (clipboard?.writeText(line) ?? Promise.reject(new Error('no clipboard'))).then(
            () => (copied.value = line),
            () => (failed.value = line),
        );
    };
    const label = copied.value === line ? text.value.copied : failed.value === line ? text.value.not : text.value.copy;
    return (
        <div class="copyable">
            <code data-test={name}>{line}</code>
            <button type="button" onClick={copy}>{label}</button>
        </div>
    );
}
