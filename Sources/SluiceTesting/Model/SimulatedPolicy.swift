import SluiceCore

extension PipelinePolicy {
    /// One in which much that is rare elsewhere happens: hardly anything has room, and pages are small.
    ///
    /// - Parameter memoryMax: The most memory for the buffer, in bytes; by default as the seed says.
    static func simulated(_ random: inout SplitMix64, memoryMax: Int? = nil) -> PipelinePolicy {
        // In a small buffer hardly anything has room.
        let most = memoryMax ?? [1 << 20, 1 << 20, 14_336, 12_000][random.pick(0..<4)]
        var policy = PipelinePolicy(interval: .milliseconds(20), rowsMax: 12, memoryMax: most)
        policy.readsMax = 3
        policy.pageMembers = random.pick(1..<4)
        policy.closingMax = .milliseconds(40)
        policy.scanClosingMax = .milliseconds(random.oneIn(2) ? 20 : 200)
        policy.sweepMax = 2
        return policy
    }
}
