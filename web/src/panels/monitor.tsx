export function Monitor() {
    return <p>Monitor</p>;
}
