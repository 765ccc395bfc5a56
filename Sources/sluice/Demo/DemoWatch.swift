import Foundation
import SluiceAdmin
import SluiceCore
import SluiceEngine
import SluiceSQLite
import SluiceTesting

/// Shows what happens while the demo writes.
struct DemoWatch {
    let adminPort: Int
    let path: String

    /// What the running instance says, or nil when it does not answer.
    func status() async -> PipelineStatus? {
        let exchange = AdminExchange(host: "127.0.0.1", port: adminPort)
        guard let answer = try? await exchange.ask("GET", "/status") else { return nil }
        return try? JSONDecoder().decode(PipelineStatus.self, from: Data(answer.body))
    }

    /// The rows written by all instances together, as the database counted them.
    func rowsWritten() async throws -> Int {
        let rows = try SQLiteQuery(path: path).rows("SELECT rows_written FROM sluice_position")
        return rows.first?.first?.flatMap { Int($0) } ?? 0
    }

    /// Shows a line a second, and kills Sluice once in the middle.
    func show(until end: ContinuousClock.Instant, killing sluice: SluiceProcess) async throws {
        let half = ContinuousClock.now + (end - .now) / 2
        var isKilled = false
        var before = (commands: 0, time: ContinuousClock.now)
        while ContinuousClock.now < end {
            try await ContinuousClock().sleep(for: .seconds(1))
            if !isKilled, ContinuousClock.now >= half {
                isKilled = true
                sluice.stop(SIGKILL)
                print("  *** SIGKILL to Sluice; starting it again ***")
                try sluice.start()
                before = (0, .now)
                continue
            }
            guard let status = await status() else { continue }
            let now = ContinuousClock.now
            let seconds = (now - before.time) / .seconds(1)
            let rate = Int(Double(status.counters.commands - before.commands) / max(0.1, seconds))
            before = (status.counters.commands, now)
            let rows = (try? await rowsWritten()) ?? 0
            print(
                "  \(DemoCommand.grouped(max(0, rate))) writes/s followed, "
                    + "\(DemoCommand.grouped(rows)) rows settled, "
                    + "folded \(status.counters.commands / max(1, status.counters.rows)) to 1, "
                    + "lag \(String(format: "%.2f", status.lagSeconds)) s")
        }
    }
}
