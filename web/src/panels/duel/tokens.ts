// A line of Rust in pieces to color: comments, strings, keywords. Modest on purpose: block comments and raw strings over
// several lines are not in the files it is for.

/** A piece of a line. */
export interface Piece {
    readonly kind: 'plain' | 'comment' | 'string' | 'keyword';
    readonly text: string;
}

const KEYWORDS = new Set(
    ('as async await const else enum fn for if impl in let loop match mod move mut pub ref return self Self static struct ' +
        'super true false type use where while dyn crate').split(' '),
);

/** The pieces of a line, which together are the line. */
export function piecesOf(line: string): Piece[] {
    const tokens = line.match(/\/\/.*$|"(?:[^"\\]|\\.)*"|\w+|[^\w"/]+|./g) ?? [];
    return tokens.map((text) => ({ kind: kindOf(text), text }));
}

function kindOf(text: string): Piece['kind'] {
    if (text.startsWith('//')) {
        return 'comment';
    }
    if (text.startsWith('"')) {
        return 'string';
    }
    return KEYWORDS.has(text) ? 'keyword' : 'plain';
}
