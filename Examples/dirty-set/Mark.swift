// Writes to Redis and marks what was written, for Sluice with capture: dirty-set.
//
// It makes commands, which any client sends: the words of each are an array of strings.
public import Foundation

/// Makes commands that write and mark in one step.
public enum Marked {
    /// One command that runs a write command and marks its key, by the function that Sluice loads.
    public static func write(_ key: String, _ command: [String]) -> [String] {
        ["FCALL", "sluice_write", "1", key] + command
    }

    /// Commands that run write commands and mark their first arguments, with nothing loaded.
    public static func transaction(
        _ commands: [[String]], now: Date = Date(),
    ) -> [[String]] {
        let milliseconds = String(Int(now.timeIntervalSince1970 * 1_000))
        let marks = commands.flatMap { [milliseconds, $0[1]] }
        return [["MULTI"]] + commands + [["ZADD", "sluice:dirty", "LT"] + marks, ["EXEC"]]
    }
}
