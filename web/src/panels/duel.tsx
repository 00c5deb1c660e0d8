export function Duel() {
    return <p>Duel</p>;
}
