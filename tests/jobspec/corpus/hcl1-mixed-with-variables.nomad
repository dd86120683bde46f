variable "n" {
  default = 3
}

job "hcl1-mixed-with-variables" {
  type = "batch",
  group "web" {
    count = var.n,
    task "main" {
      driver = "raw_exec",
      config {
        command = "/bin/echo",
        args = ["${NOMAD_ALLOC_ID}", "${var.n}"],
      }
    }
  }
}
