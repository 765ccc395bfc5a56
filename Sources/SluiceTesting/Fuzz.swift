internal import Foundation

/// Feeds decoders with bytes that are nearly right.
///
/// `SLUICE_FUZZ_SECONDS` says how long, `SLUICE_SEED` repeats a run.
public enum Fuzz {
    /// How long each decoder is fed.
    public static let duration: Duration =
        ProcessInfo.processInfo.environment["SLUICE_FUZZ_SECONDS"].flatMap(Double.init)
        .map { .seconds($0) } ?? .milliseconds(500)
    /// The seed of the run.
    public static let seed: UInt64 =
        ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap(UInt64.init)
        ?? UInt64.random(in: 0..<1_000_000)

    /// Feeds something with changed examples until the time is over.
    ///
    /// - Returns: How many it took.
    @discardableResult
    public static func run(
        _ examples: [[UInt8]], _ feed: ([UInt8], inout SplitMix64) throws -> Void,
    ) rethrows -> Int {
        var random = SplitMix64(seed: seed)
        let end = ContinuousClock.now + duration
        var count = 0
        while ContinuousClock.now < end {
            for _ in 0..<100 {
                let example = examples[random.pick(0..<examples.count)]
                try feed(changed(example, examples, &random), &random)
                count += 1
            }
        }
        return count
    }

    private static func changed(
        _ example: [UInt8], _ examples: [[UInt8]], _ random: inout SplitMix64,
    ) -> [UInt8] {
        var bytes = example
        for _ in 0..<random.pick(1..<6) {
            let place = bytes.isEmpty ? 0 : random.pick(0..<bytes.count)
            switch random.pick(0..<8) {
            case 0: bytes = Array(bytes.prefix(place))
            case 1 where !bytes.isEmpty: bytes[place] = UInt8(truncatingIfNeeded: random.next())
            case 2 where !bytes.isEmpty: bytes[place] ^= 1 << UInt8(random.pick(0..<8))
            case 3 where !bytes.isEmpty: bytes.remove(at: place)
            case 4:
                let words = ["-", "9223372036854775807", "\r\n", "0", "nan", "1e999", "\0", "{[\""]
                bytes.insert(contentsOf: Array(words[random.pick(0..<words.count)].utf8), at: place)
            case 5:
                let other = examples[random.pick(0..<examples.count)]
                bytes = Array(bytes.prefix(place)) + other.suffix(random.pick(0..<other.count + 1))
            case 6 where !bytes.isEmpty:
                let end = min(bytes.count, place + random.pick(1..<40))
                bytes.insert(contentsOf: bytes[place..<end], at: place)
            default: bytes.append(UInt8(truncatingIfNeeded: random.next()))
            }
        }
        return bytes
    }
}
