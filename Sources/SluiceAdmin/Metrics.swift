internal import SluiceCore
internal import SluiceEngine

/// Writes a status in the text form that Prometheus reads.
enum Metrics {
    static func text(_ status: PipelineStatus) -> String {
        let counters = status.counters
        let metrics: [(name: String, type: String, help: String, value: Double)] = [
            (
                "sluice_lag_seconds", "gauge", "Age of the oldest write not committed",
                status.lagSeconds
            ),
            (
                "sluice_marks_in_flight", "gauge", "Marks of the dirty set taken and not cleared",
                Double(status.marksInFlight)
            ),
            ("sluice_dirty_rows", "gauge", "Rows waiting to be written", Double(status.dirtyRows)),
            ("sluice_opaque_rows", "gauge", "Rows waiting to be read", Double(status.opaqueRows)),
            (
                "sluice_buffer_bytes", "gauge", "Memory of the row buffer",
                Double(status.bufferBytes)
            ),
            (
                "sluice_committed_offset_bytes", "gauge", "Stream offset the database has",
                Double(status.committedOffset)
            ),
            (
                "sluice_processed_offset_bytes", "gauge", "Stream offset processed",
                Double(status.processedOffset)
            ),
            (
                "sluice_commands_total", "counter", "Commands of the stream",
                Double(counters.commands)
            ),
            ("sluice_stream_bytes_total", "counter", "Bytes of the stream", Double(counters.bytes)),
            ("sluice_commits_total", "counter", "Database transactions", Double(counters.commits)),
            ("sluice_rows_total", "counter", "Rows written", Double(counters.rows)),
            ("sluice_reads_total", "counter", "Rows read back from Redis", Double(counters.reads)),
            (
                "sluice_loose_rows_total", "counter", "Rows committed newer than their cut",
                Double(counters.looseRows)
            ),
            (
                "sluice_set_aside_rows_total", "counter", "Rows set aside",
                Double(counters.setAside)
            ),
            (
                "sluice_resynchronisations_total", "counter", "Gaps in the stream",
                Double(counters.resynchronisations)
            ),
        ]
        return metrics.map { metric in
            """
            # HELP \(metric.name) \(metric.help)
            # TYPE \(metric.name) \(metric.type)
            \(metric.name) \(metric.value)

            """
        }.joined()
    }
}
