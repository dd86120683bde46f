# Work that ends: four allocations, each counts its own share, each may fail twice.

job "count" {
  type = "batch"

  group "workers" {
    count = 4

    restart {
      attempts = 2
      delay    = "5s"
      interval = "10m"
      mode     = "fail"
    }

    reschedule {
      attempts       = 1
      interval       = "1h"
      delay          = "10s"
      delay_function = "constant"
      unlimited      = false
    }

    task "count" {
      driver = "exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "i=0; while [ $i -lt 10 ]; do i=$((i+1)); echo share $NOMAD_ALLOC_INDEX: $i; sleep 1; done"]
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
