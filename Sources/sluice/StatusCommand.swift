import ArgumentParser
import Foundation
import SluiceCore
import SluiceEngine

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show what the running instance does.",
        discussion: "Exits with 0 while it follows Redis, and with 75 while something is amiss.")

    @OptionGroup var options: CommonOptions
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let client = AdminClient(configuration: try options.load())
        let answer = try await client.ask("GET", "/status")
        let status = try JSONDecoder().decode(PipelineStatus.self, from: answer.body)
        if json {
            print(String(decoding: answer.body, as: UTF8.self), terminator: "")
        } else {
            print(Self.text(status))
        }
        let isWell = status.state == .streaming || status.state == .baseline
        if !isWell { throw Sysexits.temporary }
    }

    private static func committed(_ status: PipelineStatus) -> String {
        let behind = max(0, status.processedOffset - status.committedOffset)
        guard status.capture.isExact else {
            return "committed     \(behind) rounds behind what was taken; "
                + "\(status.marksInFlight) marks in flight (\(status.capture.rawValue))"
        }
        return "committed     offset \(status.committedOffset), \(behind) bytes behind what was "
            + "processed"
    }

    static func text(_ status: PipelineStatus) -> String {
        var lines = [
            "state         \(status.state.rawValue)" + (status.reason.map { ": \($0)" } ?? ""),
            "server        \(status.server ?? "not connected")",
            committed(status),
            "lag           \(String(format: "%.3f", status.lagSeconds)) s",
            "waiting       \(status.dirtyRows) rows to write, \(status.opaqueRows) to read",
            "buffer        \(status.bufferBytes >> 20) of \(status.bufferBytesMax >> 20) MB",
            "written       \(status.counters.rows) rows in \(status.counters.commits) transactions, "
                + "from \(status.counters.commands) commands",
            "read back     \(status.counters.reads) rows; "
                + "\(status.counters.baselineReads) for baselines",
            "baseline      " + (status.isBaselineDone ? "done" : "not done"),
        ]
        if let hearsCauses = status.hearsCauses {
            lines.append(
                "causes        "
                    + (hearsCauses ? "heard" : "not heard: rows of keys that go stay, in doubt"))
        }
        if status.counters.looseRows > 0 {
            lines.append("loose         \(status.counters.looseRows) rows")
        }
        if status.counters.doubtful > 0 {
            lines.append(
                "doubtful      \(status.counters.doubtful) rows and keys went nobody knows why; "
                    + "the rows stay")
        }
        if status.counters.missing > 0 {
            lines.append("without key   \(status.counters.missing) rows, which stay")
        }
        if !status.strayTables.isEmpty {
            lines.append("strays        in \(status.strayTables.joined(separator: ", "))")
        }
        for (reason, count) in status.setAside.sorted(by: { $0.key < $1.key }) {
            lines.append("set aside     \(count) × \(reason)")
        }
        return lines.joined(separator: "\n")
    }
}

struct FlushCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Wait until the database has everything written to Redis so far.")

    @OptionGroup var options: CommonOptions

    func run() async throws {
        let client = AdminClient(configuration: try options.load())
        let answer = try await client.ask("POST", "/flush")
        guard answer.status == 200 else {
            Terminal.complain(
                "not committed", hint: "`sluice status` says what the instance waits for")
            throw Sysexits.temporary
        }
        print("Everything written so far is in the database.")
    }
}
