export function Attack() {
    return <p>Attack</p>;
}
