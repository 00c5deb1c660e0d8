// Files that the page makes.

/** Hands the reader a file. */
export function download(name: string, type: string, parts: readonly string[]): void {
    const url = URL.createObjectURL(new Blob([...parts], { type }));
    const link = document.createElement('a');
    link.href = url;
    link.download = name;
    link.click();
    // The browser has taken hold of it by the next turn.
    setTimeout(() => URL.revokeObjectURL(url), 0);
}
