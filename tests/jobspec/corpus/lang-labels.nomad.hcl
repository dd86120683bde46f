job lang-labels {
  group app {
    network {
      port http { to = 80 }
    }

    task "with blanks" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
