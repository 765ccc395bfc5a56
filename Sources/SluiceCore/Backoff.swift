/// Growing, jittered pauses between attempts.
public struct Backoff: Hashable, Sendable {
    /// The first pause, before jitter.
    public static let pauseMin = Duration.milliseconds(100)
    /// The longest pause: a database that is back is noticed within it.
    public static let pauseMax = Duration.seconds(10)

    private var failures = 0

    /// Creates a sequence that has not failed yet.
    public init() {}

    /// How often it failed since the last success.
    public var failureCount: Int { failures }

    /// Notes a success.
    public mutating func reset() {
        failures = 0
    }

    /// Notes a failure, and says how long to wait: between half of the doubled pause and all of it.
    public mutating func next(using random: inout some RandomNumberGenerator) -> Duration {
        // Twenty doublings pass the longest pause, and stop the shift from overflowing.
        let full = min(Self.pauseMax, Self.pauseMin * (1 << min(failures, 20)))
        failures += 1
        return full / 2 + full / 2 * Double.random(in: 0...1, using: &random)
    }
}
