# Every minute of the working day, in Berlin's time; a slow run is not overtaken by the next.

job "heartbeat" {
  type = "batch"

  periodic {
    crons            = ["* 9-17 * * mon-fri"]
    time_zone        = "Europe/Berlin"
    prohibit_overlap = true
  }

  group "beat" {
    task "beat" {
      driver = "raw_exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "echo alive at $(date -u +%H:%M:%S)"]
      }

      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
