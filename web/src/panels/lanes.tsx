export function Lanes() {
    return <p>Lanes</p>;
}
