job "job-periodic" {
  type = "batch"
  periodic {
    crons            = ["*/15 * * * *", "0 3 * * SUN"]
    prohibit_overlap = true
    time_zone        = "Europe/Berlin"
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
