// The two forms in which the panel shows what is not a chart: a table, and a list of facts.

/** A table; the first `texts` columns are texts, and the others numbers. What has no rows says so in a quiet line. */
export function Table({ name, title, columns, texts, rows, empty, more }: {
    readonly name: string;
    readonly title: string;
    readonly columns: readonly string[];
    readonly texts: number;
    readonly rows: readonly (readonly string[])[];
    readonly empty?: string;
    readonly more?: string | undefined;
}) {
    if (rows.length === 0) {
        return empty === undefined ? null : <p class="hint" data-test={`monitor-${name}`}>{empty}</p>;
    }
    const form = (column: number) => (column < texts ? undefined : 'number');
    return (
        <div class="monitor-part wide" data-test={`monitor-${name}`}>
            <h3>{title}</h3>
            <table>
                <thead>
                    <tr>{columns.map((column, at) => <th key={column} class={form(at)}>{column}</th>)}</tr>
                </thead>
                <tbody>
                    {rows.map((row, at) => (
                        <tr key={at}>{row.map((cell, column) => <td key={column} class={form(column)}>{cell}</td>)}</tr>
                    ))}
                </tbody>
            </table>
            {more === undefined ? null : <p class="hint">{more}</p>}
        </div>
    );
}

/** Names and their figures. */
export function Facts({ name, title, rows }: {
    readonly name: string;
    readonly title: string;
    readonly rows: readonly (readonly [string, string])[];
}) {
    return (
        <div class="monitor-part" data-test={`monitor-${name}`}>
            <h3>{title}</h3>
            <dl>
                {rows.map(([label, value]) => (
                    <div key={label}>
                        <dt>{label}</dt>
                        <dd>{value}</dd>
                    </div>
                ))}
            </dl>
        </div>
    );
}
